"""Single objects and changes, as applications use them: updates with retries, mappings with codecs, subscribers."""
