"""What `graftlab doctor` looks at: each check finds facts and, where something is amiss, a cure."""
