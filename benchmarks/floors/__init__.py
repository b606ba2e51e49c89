"""What nothing can beat: programs that share no code with Losswire and import none of it."""
