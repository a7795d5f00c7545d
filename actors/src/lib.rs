//! zccache's actors and the plain components they are shells of.

pub mod acceptor;
pub mod blobs;
pub mod capture;
pub mod compile;
pub mod connection;
pub mod coordinator;
pub mod counters;
pub mod delivery;
pub mod digest;
pub mod digesting;
pub mod file_table;
pub mod flights;
pub mod freshness;
pub mod hasher;
pub mod index;
pub mod invocation;
pub mod journal;
pub mod key;
pub mod manifest;
pub mod observation;
pub mod observer;
pub mod plan;
pub mod record;
pub mod root;
pub mod runner;
pub mod settle;
pub mod signature;
pub mod storage;
pub mod store;
pub mod supervision;
pub mod work;

#[cfg(test)]
mod test_support;
