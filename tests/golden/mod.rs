//! Texts that people see, compared with files.
