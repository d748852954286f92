//! What the instruction counts reach and nothing else may.

use super::Program;
use super::link::Frame;

/// Returns a program with so many environment variables.
pub fn program(variables: usize) -> Program {
    Program {
        program: "/usr/bin/cargo".into(),
        args: ["test", "--workspace"].map(Into::into).into(),
        cwd: "/home/somebody/src/repository".into(),
        env: (0..variables)
            .map(|n| (format!("VARIABLE_{n}").into(), "its value".into()))
            .collect(),
    }
}

/// Returns how long the frame is that starts it.
pub fn framed(program: &Program) -> usize {
    Frame::spawn(7, program, Vec::new())
        .expect("it is short")
        .len()
}
