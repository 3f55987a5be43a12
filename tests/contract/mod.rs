//! What the command line promises: exit codes and words. Nothing here runs a pipeline.
