//! What makes the actors a compiler cache: command lines become plans, options a configuration, and everything is
//! wired up and kept alive as a daemon.

pub mod any_tool;
pub mod c_family;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod limits;
pub mod logging;
pub mod observers;
pub mod planner;
pub mod rust;
pub mod system;
