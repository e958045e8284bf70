//! Crates that people use, over coro's streams, and small servers made of them.
//!
//! None of these crates knows coro: `Read` and `Write` are all that they ask for, or they have a hook. Each server here is one
//! file, runs with a backdoor (the program `coro-ecosystem` starts them) and is tested against other people's programs.
//! `docs/ecosystem.md` says what was possible with which crate, and what each server looks like under load.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
pub mod http;
pub mod https;
pub mod hyper_client;
pub mod hyper_server;
pub mod jobs;
pub mod postgres;
pub mod proxy;
pub mod redis_client;
mod sockets;
pub mod tls;
pub mod ureq_client;
