"""What a user may set: constructor arguments and options of a call, checked."""
