"""A shift-reduce parser that composes what it parses, in the manner of SPINN: each action is chosen from the state."""
