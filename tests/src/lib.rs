//! The project's tests: the simulator. The others are in `it/`.

pub mod sim;
