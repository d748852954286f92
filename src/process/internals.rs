//! What the instruction counts reach and nothing else may.

use super::wire::{Request, Spawn, encode};

/// A request to start a program, ready to be encoded.
#[derive(Debug)]
pub struct Frame(Request);

/// Returns a request with so many environment variables.
pub fn frame(variables: usize) -> Frame {
    Frame(Request::Spawn(Spawn {
        id: 7,
        has_stdin: false,
        program: "/usr/bin/cargo".into(),
        args: ["test", "--workspace"].map(Into::into).into(),
        cwd: "/home/somebody/src/repository".into(),
        env: (0..variables)
            .map(|n| (format!("VARIABLE_{n}").into(), "its value".into()))
            .collect(),
    }))
}

/// Returns the frame's bytes.
pub fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&frame.0, &mut out).expect("it is short");
    out
}
