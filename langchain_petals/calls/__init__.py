"""What a call looks like from outside, whichever class it is made on."""
