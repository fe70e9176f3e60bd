"""What a step is: its declaration, what it is given, what it says, and the one guard around its call."""
