//! Guest firmware assembled in Rust, and the tables handed to guests.
