"""Our own API: chains that can be listened to again, and controlled while they are made."""
