//! Starting a program on Linux, as glibc's and musl's `posix_spawn` do it but with less to do.
//!
//! `clone(CLONE_VM | CLONE_VFORK)`: the child borrows this process's memory on a stack of its own, and this process
//! stands still until the child's `execve` has replaced it or it has given up; nothing is copied. glibc 2.36 then asks, in
//! the child, for the handler of each of 64 signals, allocates a stack anew and checks each descriptor against the limit.
//! Here it is known which signals have handlers.
//!
//! The only unsafe code of the crate. What makes it sound: between `clone` and `execve` the child makes system calls
//! only, through functions that are async-signal-safe and allocate nothing, over memory that was made ready before; it
//! writes nothing that is shared but the error number's place and `errno`, which this thread does not look at meanwhile;
//! all signals are blocked until the handlers are gone, so that none of this process's runs in the child.

#![expect(
    unsafe_code,
    reason = "no safe interface starts a process like this; the module's text says why it is sound"
)]

use super::image::Image;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// Far more than the child's few calls take.
const STACK_BYTES: usize = 64 << 10;
/// The stack's alignment on every platform of Linux.
const STACK_ALIGN: usize = 16;
/// The signals that do not have their default action here: the guardian's own handlers, and SIGPIPE, which Rust ignores.
const HANDLED: [c_int; 6] = [
    libc::SIGCHLD,
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGPIPE,
];

/// Starts programs.
#[derive(Debug)]
pub(super) struct Starter {
    stack: Vec<u8>,
    null: File,
}

/// What the child reads, and where it leaves why it gave up.
struct Plan {
    cwd: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    stdio: [c_int; 3],
    no_signals: SigSet,
    error: c_int,
}

impl Starter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            stack: vec![0; STACK_BYTES],
            null: OpenOptions::new().read(true).open("/dev/null")?,
        })
    }

    /// Starts a process that leads a group of its own.
    ///
    /// # Errors
    ///
    /// The error number of what could not be done; nothing was started.
    pub(super) fn start(&mut self, image: &Image<'_>) -> Result<Pid, i32> {
        let (argv, env) = (pointers(&image.argv), pointers(&image.env));
        let stdin = match &image.stdin {
            Some(stdin) => stdin.as_raw_fd(),
            None => self.null.as_raw_fd(),
        };
        let [stdout, stderr] = image.outputs.each_ref().map(AsRawFd::as_raw_fd);
        let mut plan = Plan {
            cwd: image.cwd.as_ptr(),
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            stdio: [stdin, stdout, stderr],
            no_signals: SigSet::empty(),
            error: 0,
        };
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(|errno| errno as i32)?;
        let pid = self.clone_into(&mut plan);
        // It fails only where it is not told how to set the mask.
        let _ = mask.thread_set_mask();
        let pid = pid?;
        if plan.error != 0 {
            // It has exited; nobody but this process can reap it.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
            return Err(plan.error);
        }
        Ok(pid)
    }

    fn clone_into(&mut self, plan: &mut Plan) -> Result<Pid, i32> {
        let end = self.stack.as_mut_ptr_range().end;
        let top = end.wrapping_sub(end.addr() % STACK_ALIGN);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is ours alone and outlives the child's use of it, as does the plan with all it points to: this
        // call returns only when the child has left this memory. What the child does in it: see the module's text.
        let pid = unsafe { libc::clone(run, top.cast(), flags, ptr::from_mut(plan).cast()) };
        // -1 is an error, and is not to be taken for a pid.
        match Pid::from_raw(pid.max(0)) {
            Some(pid) => Ok(pid),
            None => Err(last_error()),
        }
    }
}

/// Returns `errno`; never 0, which says that nothing has failed.
fn last_error() -> i32 {
    let code = io::Error::last_os_error().raw_os_error();
    code.filter(|code| *code != 0).unwrap_or(libc::EAGAIN)
}

/// Returns the strings' addresses and, as C has it, a null at the end.
fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    let addresses = strings.iter().map(|string| string.as_ptr());
    addresses.chain([ptr::null()]).collect()
}

/// The child: becomes the program, or leaves the error number in the plan.
extern "C" fn run(plan: *mut c_void) -> c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: it is the plan that `clone_into` gave, and this thread's parent stands still, so nobody else uses it.
    let plan = unsafe { &mut *plan };
    become_program(plan);
    plan.error = last_error();
    // SAFETY: ends this process without running anything that its parent registered.
    unsafe { libc::_exit(127) }
}

/// Returns only where a call failed, with its error in `errno`.
fn become_program(plan: &Plan) {
    let Plan {
        cwd,
        argv,
        env,
        stdio,
        ref no_signals,
        ..
    } = *plan;
    // SAFETY: system calls over pointers into the plan, whose strings and lists end as C has it. The descriptors are open
    // and above those that they are put in the place of, as the guardian keeps 0, 1 and 2 open for itself.
    unsafe {
        if libc::setpgid(0, 0) < 0 {
            return;
        }
        for signal in HANDLED {
            if libc::signal(signal, libc::SIG_DFL) == libc::SIG_ERR {
                return;
            }
        }
        for (place, descriptor) in (0..).zip(stdio) {
            if libc::dup2(descriptor, place) < 0 {
                return;
            }
        }
        if libc::chdir(cwd) < 0
            || libc::sigprocmask(libc::SIG_SETMASK, no_signals.as_ref(), ptr::null_mut()) < 0
        {
            return;
        }
        libc::execve(*argv, argv, env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::Signal;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn output_of(argv: &[&CStr], env: &[&CStr], cwd: &CStr) -> Result<(String, Pid), i32> {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut starter = Starter::new().expect("it opens");
        let image = Image {
            cwd,
            argv: argv.to_vec(),
            env: env.to_vec(),
            stdin: None,
            outputs: [
                OwnedFd::from(writer.try_clone().expect("a copy")),
                OwnedFd::from(writer),
            ],
        };
        let pid = starter.start(&image)?;
        drop(image);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("reads");
        Ok((text, pid))
    }

    fn end(pid: Pid) -> (Option<i32>, Option<i32>) {
        let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)
            .expect("it is a child")
            .expect("it has ended");
        (status.exit_status(), status.terminating_signal())
    }

    #[test]
    fn a_program_gets_its_words_its_folder_its_variables_and_nothing_on_stdin() {
        let script = c"read line; echo \"$1|$X|$PWD|$line\"; env; exit 3";
        let argv = [c"/bin/sh", c"-c", script, c"sh", c"a b"];
        let (text, pid) = output_of(&argv, &[c"X=1", c"PWD=/"], c"/").expect("it starts");
        assert_eq!(text.lines().next(), Some("a b|1|/|"));
        assert!(!text.contains("HOME="), "{text}");
        assert_eq!(end(pid), (Some(3), None));
    }

    #[test]
    fn a_program_has_no_signal_blocked_or_ignored_and_leads_its_group() {
        let status = c"grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; echo $$; cut -d' ' -f5 /proc/$$/stat; kill -PIPE $$";
        let argv = [c"/bin/sh", c"-c", status];
        let (text, pid) = output_of(&argv, &[c"PATH=/usr/bin:/bin"], c"/").expect("it starts");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "SigBlk:\t0000000000000000");
        let ignored = lines[1].strip_prefix("SigIgn:\t").expect("the mask");
        let ignored = u64::from_str_radix(ignored, 16).expect("hex");
        // Signals 32 and 33 are the C library's own; it ignores them in what it starts itself.
        assert_eq!(ignored & !(3 << 31), 0, "{text}");
        assert_eq!(lines[3], lines[4], "{text}");
        assert_eq!(end(pid), (None, Some(Signal::PIPE.as_raw())));
    }

    #[test]
    fn what_cannot_be_started_says_why_and_leaves_no_child() {
        let none = output_of(&[c"/no/such/program"], &[], c"/");
        assert_eq!(none.expect_err("it is not there"), libc::ENOENT);
        let folder = output_of(&[c"/bin/true"], &[], c"/no/such/folder");
        assert_eq!(folder.expect_err("it is not there"), libc::ENOENT);
        let denied = output_of(&[c"/etc/passwd"], &[], c"/");
        assert_eq!(denied.expect_err("it has no run bit"), libc::EACCES);
        let long = std::ffi::CString::new(vec![b'x'; 4 << 20]).expect("no NUL");
        let long = output_of(&[c"/bin/true", &long], &[], c"/");
        assert_eq!(long.expect_err("it is too long"), libc::E2BIG);
    }
}
