//! One HTTP/2 server session: nghttp2 behind safe calls. It owns no socket and allocates no buffer
//! of ours: bytes in, events out; bytes out on request.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use libnghttp2_sys as ng;

/// HTTP/2 error codes that are sent on purpose.
pub mod code {
    /// All is well.
    pub const NO_ERROR: u32 = 0;
    /// The peer breaks the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// The stream is not wanted any more.
    pub const CANCEL: u32 = 8;
    /// The peer asks for more than is reasonable.
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Frame kinds as `Events::control` names them.
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// RST_STREAM.
    pub const RESET: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// WINDOW_UPDATE.
    pub const WINDOW: u8 = 8;
}

/// ACK of SETTINGS and PING.
pub const ACK: u8 = 1;

/// Header fields: names in lower case.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What follows the bytes that a body gave.
pub enum Then {
    /// More bytes.
    More,
    /// Nothing now; `Session::resume` will say when.
    Wait,
    /// The stream ends with status 0.
    Ok,
    /// The stream ends with these trailers.
    Trailers(Fields),
}

/// What happens to a session's streams. None of these may touch the session itself.
pub trait Events {
    /// A request's header block begins.
    fn begin(&mut self, stream: i32);
    /// One of its fields; false: reset the stream.
    fn header(&mut self, stream: i32, name: &[u8], value: &[u8]) -> bool;
    /// A header block is whole; trailers too.
    fn headers_end(&mut self, stream: i32, end_of_stream: bool);
    /// Part of a body; returns how many bytes of the stream's window to give back now.
    fn data(&mut self, stream: i32, bytes: &[u8]) -> usize;
    /// The peer will send no more on this stream.
    fn end(&mut self, stream: i32);
    /// The stream is no more.
    fn closed(&mut self, stream: i32, code: u32);
    /// A frame other than HEADERS was received whole.
    fn control(&mut self, kind: u8, flags: u8, length: usize);
    /// Fill `into` with the body of a response.
    fn body(&mut self, stream: i32, into: &mut [u8]) -> (usize, Then);
}

/// The connection cannot go on; whatever `send` gives should still be sent.
#[derive(Debug)]
pub struct Broken;

/// What a session promises its peer.
#[derive(Clone, Copy)]
pub struct Promises {
    /// Concurrent streams.
    pub streams: u32,
    /// Bytes of one stream that may be on their way.
    pub stream_window: u32,
    /// Bytes of all of them.
    pub connection_window: i32,
    /// Bytes of a header list.
    pub header_list: u32,
}

/// One connection's HTTP/2 state.
pub struct Session {
    session: *mut ng::nghttp2_session,
}

// SAFETY: nghttp2 sessions have no thread affinity; `Session` is never shared, only moved.
unsafe impl Send for Session {}

type Seat<'a> = &'a mut dyn Events;

const OWNED: u8 = 0;
const STATIC: u8 = (ng::NGHTTP2_NV_FLAG_NO_COPY_NAME | ng::NGHTTP2_NV_FLAG_NO_COPY_VALUE) as u8;

impl Session {
    /// Greet: the first bytes of `send` are our SETTINGS.
    pub fn new(promises: Promises) -> Session {
        let mut session = ptr::null_mut();
        // SAFETY: callbacks and options are built once and live for ever; user data is set by
        // each call that may run a callback, and by nothing else.
        unsafe {
            let (callbacks, option) = shared();
            let made =
                ng::nghttp2_session_server_new2(&mut session, callbacks, ptr::null_mut(), option);
            assert_eq!(made, 0, "nghttp2 has no memory for a session");
        }
        let setting = |settings_id, value| ng::nghttp2_settings_entry {
            settings_id,
            value,
        };
        let entries = [
            setting(ng::NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS as i32, promises.streams),
            setting(ng::NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE as i32, promises.stream_window),
            setting(ng::NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE as i32, promises.header_list),
        ];
        // SAFETY: the session is fresh; nghttp2 copies the entries.
        unsafe {
            ng::nghttp2_submit_settings(session, 0, entries.as_ptr(), entries.len());
            ng::nghttp2_session_set_local_window_size(session, 0, 0, promises.connection_window);
        }
        Session {
            session,
        }
    }

    /// Take in what the peer sent.
    pub fn receive(&mut self, bytes: &[u8], events: Seat) -> Result<(), Broken> {
        let mut seat: Seat = events;
        // SAFETY: `seat` outlives the call, which is the only one that runs callbacks on it; it is
        // taken away before it dies.
        let took = unsafe {
            ng::nghttp2_session_set_user_data(self.session, (&raw mut seat).cast());
            let took = ng::nghttp2_session_mem_recv2(self.session, bytes.as_ptr(), bytes.len());
            ng::nghttp2_session_set_user_data(self.session, ptr::null_mut());
            took
        };
        if took < 0 {
            return Err(Broken);
        }
        Ok(())
    }

    /// Append what is to be sent to `out`, until it holds `enough` bytes.
    pub fn send(&mut self, events: Seat, out: &mut Vec<u8>, enough: usize) -> Result<(), Broken> {
        let mut seat: Seat = events;
        // SAFETY: as in `receive`; nghttp2's buffer stays valid until its next call, and is copied
        // before that.
        unsafe {
            ng::nghttp2_session_set_user_data(self.session, (&raw mut seat).cast());
            let mut result = Ok(());
            while out.len() < enough {
                let mut bytes = ptr::null();
                let count = ng::nghttp2_session_mem_send2(self.session, &mut bytes);
                if count < 0 {
                    result = Err(Broken);
                }
                if count <= 0 {
                    break;
                }
                out.extend_from_slice(slice::from_raw_parts(bytes, count as usize));
            }
            ng::nghttp2_session_set_user_data(self.session, ptr::null_mut());
            result
        }
    }

    /// Begin an ordinary response: its body comes from `Events::body`.
    pub fn respond(&mut self, stream: i32, more: &[(Vec<u8>, Vec<u8>)]) {
        let fields = [field(b":status", b"200", STATIC), our_type()];
        let provider = ng::nghttp2_data_provider2 {
            source: ng::nghttp2_data_source {
                ptr: ptr::null_mut(),
            },
            read_callback: Some(on_body),
        };
        if more.is_empty() {
            // SAFETY: the fields are static; nghttp2 copies the provider.
            unsafe {
                ng::nghttp2_submit_response2(self.session, stream, fields.as_ptr(), 2, &provider)
            };
            return;
        }
        let mut every = fields.to_vec();
        every.extend(more.iter().map(|(name, value)| field(name, value, OWNED)));
        // SAFETY: nghttp2 copies names and values that are not static, and the provider.
        unsafe {
            ng::nghttp2_submit_response2(
                self.session,
                stream,
                every.as_ptr(),
                every.len(),
                &provider,
            )
        };
    }

    /// End a stream at once, headers being trailers.
    pub fn respond_only(
        &mut self,
        stream: i32,
        status: &'static [u8],
        trailers: &[(Vec<u8>, Vec<u8>)],
    ) {
        let mut every = vec![field(b":status", status, STATIC), our_type()];
        every.extend(trailers.iter().map(|(name, value)| field(name, value, OWNED)));
        // SAFETY: nghttp2 copies names and values that are not static; no provider: END_STREAM.
        unsafe {
            ng::nghttp2_submit_response2(
                self.session,
                stream,
                every.as_ptr(),
                every.len(),
                ptr::null(),
            )
        };
    }

    /// A stream that waited has something to send.
    pub fn resume(&mut self, stream: i32) {
        // SAFETY: an unknown stream, or one that does not wait, is an error code.
        unsafe { ng::nghttp2_session_resume_data(self.session, stream) };
    }

    /// End a stream from our side.
    pub fn reset(&mut self, stream: i32, code: u32) {
        // SAFETY: a stream that is gone is ignored.
        unsafe { ng::nghttp2_submit_rst_stream(self.session, 0, stream, code) };
    }

    /// Whether we have sent all that we will on this stream.
    pub fn said_all(&self, stream: i32) -> bool {
        // SAFETY: reads; -1 for a stream that is gone.
        unsafe { ng::nghttp2_session_get_stream_local_close(self.session, stream) != 0 }
    }

    /// Give `bytes` of a stream's window back.
    pub fn consume(&mut self, stream: i32, bytes: usize) {
        // SAFETY: a stream that is gone is an error code.
        unsafe { ng::nghttp2_session_consume_stream(self.session, stream, bytes) };
    }

    /// Ask the peer whether it is there.
    pub fn ping(&mut self) {
        // SAFETY: no payload.
        unsafe { ng::nghttp2_submit_ping(self.session, 0, ptr::null()) };
    }

    /// Say that a GOAWAY is near: streams that are on their way will be served.
    pub fn notice(&mut self) {
        // SAFETY: no pointers besides the session.
        unsafe { ng::nghttp2_submit_shutdown_notice(self.session) };
    }

    /// Refuse further streams; those that are open go on.
    pub fn goaway(&mut self, code: u32, why: &[u8]) {
        // SAFETY: nghttp2 copies the debug data.
        unsafe {
            let last = ng::nghttp2_session_get_last_proc_stream_id(self.session);
            ng::nghttp2_submit_goaway(self.session, 0, last, code, why.as_ptr(), why.len());
        }
    }

    /// Whether anything is left to be read or written; else the connection may close.
    pub fn alive(&self) -> bool {
        // SAFETY: reads.
        unsafe {
            ng::nghttp2_session_want_read(self.session) != 0
                || ng::nghttp2_session_want_write(self.session) != 0
        }
    }

    /// Whether something is to be sent.
    pub fn wants_write(&self) -> bool {
        // SAFETY: reads.
        unsafe { ng::nghttp2_session_want_write(self.session) != 0 }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made by us, freed once; no callback runs.
        unsafe { ng::nghttp2_session_del(self.session) };
    }
}

fn our_type() -> ng::nghttp2_nv {
    field(b"content-type", b"application/grpc", STATIC)
}

fn field(name: &[u8], value: &[u8], flags: u8) -> ng::nghttp2_nv {
    ng::nghttp2_nv {
        name: name.as_ptr().cast_mut(),
        value: value.as_ptr().cast_mut(),
        namelen: name.len(),
        valuelen: value.len(),
        flags,
    }
}

struct Shared(*mut ng::nghttp2_session_callbacks, *mut ng::nghttp2_option);
// SAFETY: written once, before anybody reads; nghttp2 only reads them.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// The callbacks and options of every session.
fn shared() -> (*const ng::nghttp2_session_callbacks, *const ng::nghttp2_option) {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let (mut callbacks, mut option) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both are allocated here and never freed; the functions have C's signatures.
        unsafe {
            assert_eq!(ng::nghttp2_session_callbacks_new(&mut callbacks), 0);
            assert_eq!(ng::nghttp2_option_new(&mut option), 0);
            ng::nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, Some(on_begin));
            ng::nghttp2_session_callbacks_set_on_header_callback(callbacks, Some(on_header));
            ng::nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Some(on_frame));
            ng::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Some(on_data));
            ng::nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Some(on_close));
            ng::nghttp2_option_set_no_auto_window_update(option, 1);
            ng::nghttp2_option_set_no_closed_streams(option, 1);
            ng::nghttp2_option_set_max_settings(option, 16);
            // Ours is the limit on resets (`calm.rs`): it says ENHANCE_YOUR_CALM.
            ng::nghttp2_option_set_stream_reset_rate_limit(option, u64::MAX, u64::MAX);
        }
        Shared(callbacks, option)
    });
    (shared.0, shared.1)
}

/// SAFETY: only within `Session::receive` and `send`, whose seat this is.
unsafe fn seat<'a>(user_data: *mut c_void) -> &'a mut dyn Events {
    &mut **user_data.cast::<Seat<'a>>()
}

unsafe extern "C" fn on_begin(
    _: *mut ng::nghttp2_session,
    frame: *const ng::nghttp2_frame,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes a valid frame; every kind of it begins with the header.
    unsafe {
        if (*frame).headers.cat == ng::NGHTTP2_HCAT_REQUEST {
            seat(user_data).begin((*frame).hd.stream_id);
        }
    }
    0
}

unsafe extern "C" fn on_header(
    session: *mut ng::nghttp2_session,
    frame: *const ng::nghttp2_frame,
    name: *const u8,
    name_length: usize,
    value: *const u8,
    value_length: usize,
    _flags: u8,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes valid buffers of these lengths.
    let kept = unsafe {
        let name = slice::from_raw_parts(name, name_length);
        let value = slice::from_raw_parts(value, value_length);
        seat(user_data).header((*frame).hd.stream_id, name, value)
    };
    if kept {
        return 0;
    }
    // SAFETY: submitting is allowed in this callback; the frame is valid.
    unsafe {
        let stream = (*frame).hd.stream_id;
        ng::nghttp2_submit_rst_stream(session, 0, stream, code::ENHANCE_YOUR_CALM);
    }
    ng::NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
}

unsafe extern "C" fn on_frame(
    _: *mut ng::nghttp2_session,
    frame: *const ng::nghttp2_frame,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes a valid frame; every kind of it begins with the header.
    let (header, seat) = unsafe { ((*frame).hd, seat(user_data)) };
    let ended = u32::from(header.flags) & ng::NGHTTP2_FLAG_END_STREAM != 0;
    match u32::from(header.type_) {
        kind if kind == ng::NGHTTP2_HEADERS => seat.headers_end(header.stream_id, ended),
        kind if kind == ng::NGHTTP2_DATA => {
            if ended {
                seat.end(header.stream_id);
            } else if header.length == 0 {
                seat.control(kind::DATA, header.flags, 0);
            }
        }
        _ => seat.control(header.type_, header.flags, header.length),
    }
    0
}

unsafe extern "C" fn on_data(
    session: *mut ng::nghttp2_session,
    _flags: u8,
    stream: i32,
    bytes: *const u8,
    length: usize,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes a valid buffer; consuming is allowed in this callback.
    unsafe {
        let taken = seat(user_data).data(stream, slice::from_raw_parts(bytes, length));
        ng::nghttp2_session_consume_connection(session, length);
        if taken > 0 {
            ng::nghttp2_session_consume_stream(session, stream, taken);
        }
    }
    0
}

unsafe extern "C" fn on_close(
    _: *mut ng::nghttp2_session,
    stream: i32,
    code: u32,
    user_data: *mut c_void,
) -> i32 {
    if !user_data.is_null() {
        // SAFETY: not null, so within `receive` or `send`.
        unsafe { seat(user_data).closed(stream, code) };
    }
    0
}

unsafe extern "C" fn on_body(
    session: *mut ng::nghttp2_session,
    stream: i32,
    into: *mut u8,
    length: usize,
    flags: *mut u32,
    _source: *mut ng::nghttp2_data_source,
    user_data: *mut c_void,
) -> ng::nghttp2_ssize {
    // SAFETY: nghttp2 passes a buffer of that length and flags to be set; trailers may be
    // submitted from this callback, and are copied unless static.
    unsafe {
        let (written, then) = seat(user_data).body(stream, slice::from_raw_parts_mut(into, length));
        match then {
            Then::More => {}
            Then::Wait => {
                if written == 0 {
                    return ng::NGHTTP2_ERR_DEFERRED as ng::nghttp2_ssize;
                }
            }
            Then::Ok => {
                *flags |= ng::NGHTTP2_DATA_FLAG_EOF | ng::NGHTTP2_DATA_FLAG_NO_END_STREAM;
                let status = [field(b"grpc-status", b"0", STATIC)];
                ng::nghttp2_submit_trailer(session, stream, status.as_ptr(), 1);
            }
            Then::Trailers(trailers) => {
                *flags |= ng::NGHTTP2_DATA_FLAG_EOF | ng::NGHTTP2_DATA_FLAG_NO_END_STREAM;
                let every: Vec<_> =
                    trailers.iter().map(|(name, value)| field(name, value, OWNED)).collect();
                ng::nghttp2_submit_trailer(session, stream, every.as_ptr(), every.len());
            }
        }
        written as ng::nghttp2_ssize
    }
}
