//! What a new process runs and holds.

use crate::process::wire::CStrings;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// What a new process runs and holds.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// The folder it runs in: absolute.
    pub(super) cwd: &'a CStr,
    /// The program's path, absolute, then its arguments.
    pub(super) argv: Vec<&'a CStr>,
    /// Each `NAME=VALUE`.
    pub(super) env: Vec<&'a CStr>,
    /// What it reads; none is an empty stdin.
    pub(super) stdin: Option<OwnedFd>,
    /// What its stdout and its stderr are.
    pub(super) outputs: [OwnedFd; 2],
}

impl<'a> Image<'a> {
    /// Returns the image of what `words` name: a folder, a program and its arguments. `setting` replaces the variable of
    /// its name.
    pub(super) fn new(
        words: CStrings<'a>,
        env: CStrings<'a>,
        setting: &'a CStr,
        stdin: Option<OwnedFd>,
        outputs: [OwnedFd; 2],
    ) -> Option<Self> {
        let mut words = words.iter();
        let cwd = words.next()?;
        let argv: Vec<&CStr> = words.collect();
        let set = name_of(setting);
        let kept = env.iter().filter(|pair| name_of(pair) != set);
        (!argv.is_empty()).then(|| Self {
            cwd,
            argv,
            env: kept.chain([setting]).collect(),
            stdin,
            outputs,
        })
    }
}

/// Returns the name of a `NAME=VALUE`.
fn name_of(pair: &CStr) -> &[u8] {
    let pair = pair.to_bytes();
    let end = pair.iter().position(|byte| *byte == b'=');
    &pair[..end.unwrap_or(pair.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wire::CStringBuffer;
    use std::fs::File;

    fn strings(texts: &[&str]) -> CStringBuffer {
        let mut buffer = CStringBuffer::default();
        for text in texts {
            buffer.push(&[text.as_ref()]).expect("no NUL");
        }
        buffer
    }

    fn null() -> OwnedFd {
        File::open("/dev/null").expect("opens").into()
    }

    #[test]
    fn the_setting_replaces_the_variable_of_its_name_alone() {
        let words = strings(&["/", "/bin/echo", "", "a b"]);
        let env = strings(&["M=1", "MM=2", "X=M=1", "=", "M"]);
        let image = Image::new(
            words.strings(),
            env.strings(),
            c"M=9",
            None,
            [null(), null()],
        );
        let image = image.expect("whole");
        assert_eq!(image.cwd, c"/");
        assert_eq!(image.argv, [c"/bin/echo", c"", c"a b"]);
        assert_eq!(image.env, [c"MM=2", c"X=M=1", c"=", c"M=9"]);
    }

    #[test]
    fn words_without_a_program_are_no_image() {
        let (words, none) = (strings(&["/"]), strings(&[]));
        let image = |words| Image::new(words, none.strings(), c"M=9", None, [null(), null()]);
        assert!(image(words.strings()).is_none() && image(none.strings()).is_none());
    }
}
