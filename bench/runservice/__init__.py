"""What runs cost: their start, scheduling, logs and lists, and a service that idles."""
