"""Where sandboxes come from: agent, supervisor, jails, limits and run logs of one machine."""
