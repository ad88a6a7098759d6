"""The follower: a log that grows, from its lines to confirmed repairs."""
