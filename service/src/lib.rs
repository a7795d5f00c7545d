//! What makes the actors a compiler cache: compilers' command lines become plans here.

pub mod c_family;
pub mod planner;
