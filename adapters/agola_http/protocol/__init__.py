"""What both ends of the wire share: names, JSON documents and errors. Imports nothing else of this package."""
