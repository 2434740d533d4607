"""What goes over the wire: requests as models that name every bad field, and answers as plain JSON objects."""
