//! One HTTP/2 server session: a safe interface to nghttp2. The session owns no socket. It takes
//! received bytes and calls `Events`. It gives bytes to be sent on request.

mod callbacks;

use std::ptr;
use std::slice;

use libnghttp2_sys as ng;

use callbacks::{callback_table, on_body};

/// HTTP/2 error codes (RFC 9113, section 7) that this server sends.
pub mod error_code {
    /// A graceful end.
    pub const NO_ERROR: u32 = 0;
    /// The peer has broken a rule of HTTP/2.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// A frame has come for a stream that is closed.
    pub const STREAM_CLOSED: u32 = 5;
    /// The stream is no longer needed.
    pub const CANCEL: u32 = 8;
    /// The peer generates excessive load.
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// HTTP/2 frame types (RFC 9113, section 6).
pub mod frame_type {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
}

/// The ACK flag of SETTINGS and PING.
pub const ACK: u8 = 1;

/// Header fields as (name, value). Names are in lower case.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What follows the bytes that `Events::read_body` gave.
pub enum BodyState {
    /// More bytes, now.
    More,
    /// Nothing until `Session::resume` is called.
    Deferred,
    /// The end of the stream, with grpc-status 0.
    Ok,
    /// The end of the stream, without trailers.
    Plain,
    /// The end of the stream, with these trailers.
    Trailers(Fields),
}

/// What a session calls as it reads and writes. An implementation must not use the session.
pub trait Events {
    /// A frame begins. nghttp2 may ignore it, if its stream is closed.
    fn begin_frame(&mut self, frame_type: u8, stream: i32);
    /// The header block of a new request begins.
    fn begin_headers(&mut self, stream: i32);
    /// One header field. An error is the code with which the stream is reset, here and below.
    fn header(&mut self, stream: i32, name: &[u8], value: &[u8]) -> Result<(), u32>;
    /// A header block is complete. The client's trailers are one too.
    fn end_headers(&mut self, stream: i32, end_of_stream: bool) -> Result<(), u32>;
    /// Bytes of a DATA frame. Returns how many to return to the stream's flow-control window now.
    fn data(&mut self, stream: i32, bytes: &[u8]) -> Result<usize, u32>;
    /// The peer sent END_STREAM.
    fn end_stream(&mut self, stream: i32) -> Result<(), u32>;
    /// The stream is closed.
    fn stream_closed(&mut self, stream: i32, error_code: u32);
    /// A frame was received: any but HEADERS, and DATA only if it is empty.
    fn control_frame(&mut self, frame_type: u8, flags: u8, length: usize);
    /// Copy bytes of a response's body into `into`. Returns how many, and what follows them.
    fn read_body(&mut self, stream: i32, into: &mut [u8]) -> (usize, BodyState);
}

/// The connection has failed. What `Session::send` gives should still be sent: it says why.
#[derive(Debug)]
pub struct SessionError;

/// The SETTINGS of a session, and its connection's flow-control window.
#[derive(Clone, Copy)]
pub struct SessionSettings {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub max_concurrent_streams: u32,
    /// SETTINGS_INITIAL_WINDOW_SIZE, in bytes.
    pub initial_window_size: u32,
    /// The connection's window, in bytes.
    pub connection_window_size: i32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE, in bytes.
    pub max_header_list_size: u32,
}

/// One connection's HTTP/2 state.
pub struct Session {
    session: *mut ng::nghttp2_session,
}

// SAFETY: nghttp2 sessions have no thread affinity. `Session` is only moved, never shared.
unsafe impl Send for Session {}

type EventSink<'a> = &'a mut dyn Events;

const OWNED: u8 = 0;
const STATIC: u8 = (ng::NGHTTP2_NV_FLAG_NO_COPY_NAME | ng::NGHTTP2_NV_FLAG_NO_COPY_VALUE) as u8;

impl Session {
    /// A new session. The first bytes that `send` gives are its SETTINGS.
    pub fn new(settings: SessionSettings) -> Session {
        let mut session = ptr::null_mut();
        // SAFETY: callbacks and options are built once and never freed. Only `receive` and `send` set
        // the user data, and only they run callbacks that use it.
        unsafe {
            let (callbacks, option) = callback_table();
            let result =
                ng::nghttp2_session_server_new2(&mut session, callbacks, ptr::null_mut(), option);
            assert_eq!(result, 0, "nghttp2 has no memory for a session");
        }
        let setting = |settings_id, value| ng::nghttp2_settings_entry {
            settings_id,
            value,
        };
        let entries = [
            setting(
                ng::NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS as i32,
                settings.max_concurrent_streams,
            ),
            setting(ng::NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE as i32, settings.initial_window_size),
            setting(
                ng::NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE as i32,
                settings.max_header_list_size,
            ),
        ];
        // SAFETY: the session is new, and nghttp2 copies the entries.
        unsafe {
            ng::nghttp2_submit_settings(session, 0, entries.as_ptr(), entries.len());
            ng::nghttp2_session_set_local_window_size(
                session,
                0,
                0,
                settings.connection_window_size,
            );
        }
        Session {
            session,
        }
    }

    /// Process bytes that the peer sent.
    pub fn receive(&mut self, bytes: &[u8], events: EventSink) -> Result<(), SessionError> {
        let mut sink: EventSink = events;
        // SAFETY: `sink` outlives the call, which is the only one that runs callbacks on it. The user
        // data is reset before `sink` is dropped.
        let result = unsafe {
            ng::nghttp2_session_set_user_data(self.session, (&raw mut sink).cast());
            let result = ng::nghttp2_session_mem_recv2(self.session, bytes.as_ptr(), bytes.len());
            ng::nghttp2_session_set_user_data(self.session, ptr::null_mut());
            result
        };
        if result < 0 {
            return Err(SessionError);
        }
        Ok(())
    }

    /// Append frames to `out` until it holds `bytes_wanted` bytes or there are no more.
    pub fn send(
        &mut self,
        events: EventSink,
        out: &mut Vec<u8>,
        bytes_wanted: usize,
    ) -> Result<(), SessionError> {
        let mut sink: EventSink = events;
        // SAFETY: as in `receive`. nghttp2's buffer stays valid until its next call, and is copied
        // before that.
        unsafe {
            ng::nghttp2_session_set_user_data(self.session, (&raw mut sink).cast());
            let mut result = Ok(());
            while out.len() < bytes_wanted {
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

    /// Submit response headers, with `extra` fields. The body comes from `Events::read_body`.
    pub fn respond(&mut self, stream: i32, extra: &[(Vec<u8>, Vec<u8>)]) {
        let fields = [field(b":status", b"200", STATIC), content_type()];
        let provider = ng::nghttp2_data_provider2 {
            source: ng::nghttp2_data_source {
                ptr: ptr::null_mut(),
            },
            read_callback: Some(on_body),
        };
        if extra.is_empty() {
            // SAFETY: the fields are static, and nghttp2 copies the provider.
            unsafe {
                ng::nghttp2_submit_response2(self.session, stream, fields.as_ptr(), 2, &provider)
            };
            return;
        }
        let mut all_fields = fields.to_vec();
        all_fields.extend(extra.iter().map(|(name, value)| field(name, value, OWNED)));
        // SAFETY: nghttp2 copies names and values that are not static, and the provider.
        unsafe {
            ng::nghttp2_submit_response2(
                self.session,
                stream,
                all_fields.as_ptr(),
                all_fields.len(),
                &provider,
            )
        };
    }

    /// Submit the headers of a text that comes from `Events::read_body`.
    pub fn respond_with_text(&mut self, stream: i32, status: &'static [u8]) {
        let fields = [
            field(b":status", status, STATIC),
            field(b"content-type", b"text/plain; charset=utf-8", STATIC),
        ];
        let provider = ng::nghttp2_data_provider2 {
            source: ng::nghttp2_data_source {
                ptr: ptr::null_mut(),
            },
            read_callback: Some(on_body),
        };
        // SAFETY: the fields are static, and nghttp2 copies the provider.
        unsafe {
            ng::nghttp2_submit_response2(self.session, stream, fields.as_ptr(), 2, &provider)
        };
    }

    /// Submit a response without a body: headers and trailers in one block, with END_STREAM.
    pub fn respond_without_body(
        &mut self,
        stream: i32,
        status: &'static [u8],
        trailers: &[(Vec<u8>, Vec<u8>)],
    ) {
        let mut all_fields = vec![field(b":status", status, STATIC), content_type()];
        all_fields.extend(trailers.iter().map(|(name, value)| field(name, value, OWNED)));
        // SAFETY: nghttp2 copies names and values that are not static. No provider means END_STREAM.
        unsafe {
            ng::nghttp2_submit_response2(
                self.session,
                stream,
                all_fields.as_ptr(),
                all_fields.len(),
                ptr::null(),
            )
        };
    }

    /// Read a deferred body again.
    pub fn resume(&mut self, stream: i32) {
        // SAFETY: for an unknown stream, or one that is not deferred, the result is an error code.
        unsafe { ng::nghttp2_session_resume_data(self.session, stream) };
    }

    /// Send RST_STREAM.
    pub fn reset(&mut self, stream: i32, error_code: u32) {
        // SAFETY: a closed stream is ignored.
        unsafe { ng::nghttp2_submit_rst_stream(self.session, 0, stream, error_code) };
    }

    /// Whether END_STREAM was sent on this stream.
    pub fn is_local_closed(&self, stream: i32) -> bool {
        // SAFETY: only reads. The result is -1 for a closed stream.
        unsafe { ng::nghttp2_session_get_stream_local_close(self.session, stream) != 0 }
    }

    /// Return `bytes` to a stream's flow-control window.
    pub fn consume(&mut self, stream: i32, bytes: usize) {
        // SAFETY: for a closed stream, the result is an error code.
        unsafe { ng::nghttp2_session_consume_stream(self.session, stream, bytes) };
    }

    /// Queue a PING with an empty payload.
    pub fn ping(&mut self) {
        // SAFETY: a null payload is allowed.
        unsafe { ng::nghttp2_submit_ping(self.session, 0, ptr::null()) };
    }

    /// Send a GOAWAY that allows every stream, as a notice that the final one will follow.
    pub fn submit_shutdown_notice(&mut self) {
        // SAFETY: no pointers besides the session.
        unsafe { ng::nghttp2_submit_shutdown_notice(self.session) };
    }

    /// Send GOAWAY with the last stream that was received. Open streams go on.
    pub fn goaway(&mut self, error_code: u32, debug: &[u8]) {
        // SAFETY: nghttp2 copies the debug data.
        unsafe {
            let last = ng::nghttp2_session_get_last_proc_stream_id(self.session);
            ng::nghttp2_submit_goaway(
                self.session,
                0,
                last,
                error_code,
                debug.as_ptr(),
                debug.len(),
            );
        }
    }

    /// Whether the session wants to read or to write. If neither, the connection is over.
    pub fn wants_io(&self) -> bool {
        // SAFETY: only reads.
        unsafe {
            ng::nghttp2_session_want_read(self.session) != 0
                || ng::nghttp2_session_want_write(self.session) != 0
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session is freed once, and no callback runs.
        unsafe { ng::nghttp2_session_del(self.session) };
    }
}

/// The bytes of a RST_STREAM frame. nghttp2 sends none for a closed stream.
pub fn reset_frame(stream: i32, error_code: u32) -> [u8; 13] {
    let mut frame = [0, 0, 4, frame_type::RST_STREAM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[5..9].copy_from_slice(&stream.to_be_bytes());
    frame[9..].copy_from_slice(&error_code.to_be_bytes());
    frame
}

/// Whether a name of a field has the right letters, of which none is in upper case.
pub fn is_field_name(name: &[u8]) -> bool {
    // SAFETY: only reads so many bytes.
    unsafe { ng::nghttp2_check_header_name(name.as_ptr(), name.len()) != 0 }
}

/// Whether a field may have this value, which has no blanks at its ends.
pub fn is_field_value(value: &[u8]) -> bool {
    // SAFETY: as above.
    unsafe { ng::nghttp2_check_header_value_rfc9113(value.as_ptr(), value.len()) != 0 }
}

/// Whether this is a host, or a host and port.
pub fn is_authority(value: &[u8]) -> bool {
    // SAFETY: as above.
    let letters = unsafe { ng::nghttp2_check_authority(value.as_ptr(), value.len()) != 0 };
    letters && !value.contains(&b'@') && !value.contains(&b'/')
}

/// Whether a path begins with a slash and has the right letters.
pub fn is_path(value: &[u8]) -> bool {
    // SAFETY: as above.
    value.first() == Some(&b'/')
        && unsafe { ng::nghttp2_check_path(value.as_ptr(), value.len()) != 0 }
}

fn content_type() -> ng::nghttp2_nv {
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
