"""Chat in the terminal: the conversation, its commands, the lines that are read and written."""
