"""The engine: token ids in, tokens out. It knows nothing of LangChain; nothing above it reaches below `submit`."""
