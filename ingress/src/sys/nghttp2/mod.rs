//! One HTTP/2 server session: nghttp2 behind safe calls. It owns no socket and allocates no buffer
//! of ours: bytes in, events out; bytes out on request.

mod callbacks;

use std::ptr;
use std::slice;

use libnghttp2_sys as ng;

use callbacks::{callback_table, on_body};

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
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
}

/// ACK of SETTINGS and PING.
pub const ACK: u8 = 1;

/// Header fields: names in lower case.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What follows the bytes that a body gave.
pub enum BodyState {
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
    fn body(&mut self, stream: i32, into: &mut [u8]) -> (usize, BodyState);
}

/// The connection cannot go on; whatever `send` gives should still be sent.
#[derive(Debug)]
pub struct SessionError;

/// What a session promises its peer.
#[derive(Clone, Copy)]
pub struct SessionSettings {
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

type EventSink<'a> = &'a mut dyn Events;

const OWNED: u8 = 0;
const STATIC: u8 = (ng::NGHTTP2_NV_FLAG_NO_COPY_NAME | ng::NGHTTP2_NV_FLAG_NO_COPY_VALUE) as u8;

impl Session {
    /// Greet: the first bytes of `send` are our SETTINGS.
    pub fn new(promises: SessionSettings) -> Session {
        let mut session = ptr::null_mut();
        // SAFETY: callbacks and options are built once and live for ever; user data is set by
        // each call that may run a callback, and by nothing else.
        unsafe {
            let (callbacks, option) = callback_table();
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
    pub fn receive(&mut self, bytes: &[u8], events: EventSink) -> Result<(), SessionError> {
        let mut events: EventSink = events;
        // SAFETY: `seat` outlives the call, which is the only one that runs callbacks on it; it is
        // taken away before it dies.
        let took = unsafe {
            ng::nghttp2_session_set_user_data(self.session, (&raw mut events).cast());
            let took = ng::nghttp2_session_mem_recv2(self.session, bytes.as_ptr(), bytes.len());
            ng::nghttp2_session_set_user_data(self.session, ptr::null_mut());
            took
        };
        if took < 0 {
            return Err(SessionError);
        }
        Ok(())
    }

    /// Append what is to be sent to `out`, until it holds `enough` bytes.
    pub fn send(
        &mut self,
        events: EventSink,
        out: &mut Vec<u8>,
        enough: usize,
    ) -> Result<(), SessionError> {
        let mut events: EventSink = events;
        // SAFETY: as in `receive`; nghttp2's buffer stays valid until its next call, and is copied
        // before that.
        unsafe {
            ng::nghttp2_session_set_user_data(self.session, (&raw mut events).cast());
            let mut result = Ok(());
            while out.len() < enough {
                let mut bytes = ptr::null();
                let count = ng::nghttp2_session_mem_send2(self.session, &mut bytes);
                if count < 0 {
                    result = Err(SessionError);
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
    pub fn respond_without_body(
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
    pub fn local_closed(&self, stream: i32) -> bool {
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
    pub fn wants_io(&self) -> bool {
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
