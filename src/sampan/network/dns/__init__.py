"""The answering process of containers' names: it imports nothing of the rest of Sampan, and little of Python."""
