"""What takes the events that clusters send (the door to HTTP servers, mail servers and chats)."""
