"""What many hosts say, as one picture: `smfix fleet report`."""
