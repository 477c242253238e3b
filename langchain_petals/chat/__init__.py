"""Messages in, messages out: the half of the package that knows LangChain's messages, and neither torch nor petals."""
