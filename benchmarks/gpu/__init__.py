"""First contact with a GPU: everything in one command, each part in a process of its own with a limit (`make gpu`)."""
