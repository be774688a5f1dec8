"""Where values lie, and who hands out the memory."""
