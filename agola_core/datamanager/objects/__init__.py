"""Single objects, as applications use them: updates with retries."""
