"""What an experiment measures: a cluster behind its public doors, whoever runs it, or a simulated one."""
