//! Bytes of a page that another process reads after this process crashed.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

/// A mapping of a file, shared with every process that maps the same file.
pub struct SharedPage {
    bytes: NonNull<AtomicU8>,
    length: usize,
}

// SAFETY: it is only read and written as atomic bytes.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Map the first `length` bytes of a file. The descriptor may be closed afterwards.
    pub fn map(fd: RawFd, length: usize) -> io::Result<SharedPage> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice. A descriptor that cannot be mapped
        // is an error.
        let at = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let bytes = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("no address"))?;
        Ok(SharedPage {
            bytes,
            length,
        })
    }

    /// Set one byte. Bytes behind the page are ignored.
    pub fn set(&self, at: usize, value: u8) {
        if at < self.length {
            // SAFETY: the byte lies within the mapping, which lives as long as `self`.
            unsafe { self.bytes.add(at).as_ref() }.store(value, Ordering::Relaxed);
        }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference to it is left.
        unsafe { libc::munmap(self.bytes.as_ptr().cast(), self.length) };
    }
}
