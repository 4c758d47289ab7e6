// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The screen and the keyboard over RFB, the protocol of VNC viewers (RFC 6143): for the build's
//! own console and for people who want to look.
//!
//! A thread accepts clients, and each client has two: one that listens and one that sends. One
//! more thread, for all of them, samples the screen, but only while a client waits for a change.
//! It compares tiles with the picture before and notes what changed for each client. A client
//! gets one update for each request, so that a slow one only falls behind by itself; pictures are
//! shared and never change, so that nobody waits while another one's update is under way.
//!
//! A guest that changes its mode announces it by the DesktopSize pseudo-encoding. A client that
//! cannot follow keeps its size: it sees the upper left part, and black beyond the picture's
//! edges.

mod auth;
mod client;
mod encode;
mod handshake;
mod hub;
mod picture;
mod pixel;
mod protocol;
mod server;
#[cfg(test)]
mod tests;
mod tiles;
mod viewer;
mod zrle;

pub use client::converse;
pub use protocol::Gone;
pub use server::{Place, VncServer};

use super::dev::framebuffer::Framebuffer;

/// Where the picture comes from.
pub trait Screen: Send + Sync {
    /// Copies the picture, line after line without gaps, and gives its width and height in
    /// pixels. Pixels have 32 bits: blue in the lowest eight, then green, then red; the highest
    /// ones do not count. An answer that is no picture, such as one without pixels or one larger
    /// than 65535 × 65535, is taken as no change.
    fn copy(&self, into: &mut Vec<u32>) -> (u32, u32);
}

impl Screen for Framebuffer {
    fn copy(&self, into: &mut Vec<u32>) -> (u32, u32) {
        Framebuffer::copy(self, into)
    }
}

/// Where keys go. Called from the clients' threads; whoever blocks there keeps that client's
/// further keys waiting and nothing else.
pub trait Input: Send + Sync {
    /// A key goes down or up. The number is an X11 keysym (RFC 6143 §7.5.4). Every key that went
    /// down comes up again, at the latest when its client leaves.
    fn key(&self, keysym: u32, down: bool);

    /// A client has come, has left, or was refused, and why.
    fn note(&self, what: &str) {
        tracing::info!("{what}");
    }
}

impl<F: Fn(u32, bool) + Send + Sync> Input for F {
    fn key(&self, keysym: u32, down: bool) {
        self(keysym, down);
    }
}
