//! One call of the server fails, and which one is up to the test.

/// A call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Poll,
    Accept,
    Watch,
    OpenReserve,
    Read,
    Write,
}

impl Call {
    /// The errors that it can fail with.
    pub const fn errors(self) -> &'static [i32] {
        match self {
            Self::Poll => &[libc::EINTR],
            Self::Accept => &[
                libc::EINTR,
                libc::EAGAIN,
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOBUFS,
                libc::ENOMEM,
                libc::ECONNABORTED,
                libc::EPROTO,
                libc::EPERM,
                libc::ENETDOWN,
                libc::ENETUNREACH,
                libc::EHOSTDOWN,
                libc::EHOSTUNREACH,
                libc::ENOPROTOOPT,
                libc::EOPNOTSUPP,
            ],
            Self::Watch => &[libc::ENOSPC, libc::ENOMEM],
            Self::OpenReserve => &[libc::EMFILE],
            Self::Read => &[
                libc::EINTR,
                libc::EAGAIN,
                libc::ECONNRESET,
                libc::ETIMEDOUT,
                libc::EHOSTUNREACH,
                libc::ENETUNREACH,
                libc::ENOMEM,
            ],
            Self::Write => &[
                libc::EINTR,
                libc::EAGAIN,
                libc::EPIPE,
                libc::ECONNRESET,
                libc::ETIMEDOUT,
                libc::EHOSTUNREACH,
                libc::ENETUNREACH,
                libc::ENOBUFS,
                libc::ENOMEM,
            ],
        }
    }
}

/// Counts the calls, and has one of them fail.
#[derive(Debug, Default)]
pub struct Torture {
    /// All calls so far, in order.
    pub calls: Vec<Call>,
    /// Which call is to fail, and with what.
    pub fails: Option<(usize, i32)>,
    /// Whether they are remembered, or only counted.
    pub is_recording: bool,
    count: usize,
}

impl Torture {
    fn call(&mut self, call: Call) -> Option<i32> {
        if self.is_recording {
            self.calls.push(call);
        }
        let index = self.count;
        self.count += 1;
        self.fails
            .and_then(|(failing, errno)| (failing == index).then_some(errno))
    }

    pub fn poll(&mut self) -> bool {
        self.call(Call::Poll).is_some()
    }

    pub fn accept(&mut self) -> Option<i32> {
        self.call(Call::Accept)
    }

    pub fn watch(&mut self) -> Option<i32> {
        self.call(Call::Watch)
    }

    pub fn reserve(&mut self) -> bool {
        self.call(Call::OpenReserve).is_some()
    }

    pub fn read(&mut self) -> Option<i32> {
        self.call(Call::Read)
    }

    pub fn write(&mut self) -> Option<i32> {
        self.call(Call::Write)
    }
}
