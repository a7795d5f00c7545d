//! zccache's actors and the plain components they are shells of.

pub mod blobs;
pub mod capture;
pub mod counters;
pub mod delivery;
pub mod digest;
pub mod file_table;
pub mod freshness;
pub mod index;
pub mod invocation;
pub mod key;
pub mod manifest;
pub mod observation;
pub mod observer;
pub mod plan;
pub mod record;
pub mod signature;
pub mod storage;

#[cfg(test)]
mod test_support;
