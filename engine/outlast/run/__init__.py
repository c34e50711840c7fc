"""What happens inside a run: the replay of its journal, the tries of its steps, its waits, its undo."""
