//! nghttp2's callbacks, which call `Events`.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use libnghttp2_sys as ng;

use super::{field, BodyState, EventSink, Events, OWNED, STATIC};

struct CallbackTable(*mut ng::nghttp2_session_callbacks, *mut ng::nghttp2_option);
// SAFETY: written once before the first read. nghttp2 only reads them.
unsafe impl Send for CallbackTable {}
// SAFETY: as above.
unsafe impl Sync for CallbackTable {}

/// The callbacks and options that all sessions share.
pub(super) fn callback_table() -> (*const ng::nghttp2_session_callbacks, *const ng::nghttp2_option)
{
    static TABLE: OnceLock<CallbackTable> = OnceLock::new();
    let callback_table = TABLE.get_or_init(|| {
        let (mut callbacks, mut option) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both are allocated here and never freed. The functions have nghttp2's signatures.
        unsafe {
            assert_eq!(ng::nghttp2_session_callbacks_new(&mut callbacks), 0);
            assert_eq!(ng::nghttp2_option_new(&mut option), 0);
            ng::nghttp2_session_callbacks_set_on_begin_frame_callback(
                callbacks,
                Some(on_begin_frame),
            );
            ng::nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, Some(on_begin));
            ng::nghttp2_session_callbacks_set_on_header_callback(callbacks, Some(on_header));
            ng::nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Some(on_frame));
            ng::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Some(on_data));
            ng::nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Some(on_close));
            // http2/request_head.rs has the rules of requests: nghttp2 ends the connection, and
            // that has the calls of others.
            ng::nghttp2_option_set_no_http_messaging(option, 1);
            ng::nghttp2_option_set_no_auto_window_update(option, 1);
            ng::nghttp2_option_set_no_closed_streams(option, 1);
            ng::nghttp2_option_set_max_settings(option, 16);
            // http2/frame_limits.rs limits resets itself, and answers with ENHANCE_YOUR_CALM.
            ng::nghttp2_option_set_stream_reset_rate_limit(option, u64::MAX, u64::MAX);
        }
        CallbackTable(callbacks, option)
    });
    (callback_table.0, callback_table.1)
}

/// The receiver of events.
///
/// # Safety
///
/// Only within `Session::receive` and `Session::send`, which set the user data.
unsafe fn events<'a>(user_data: *mut c_void) -> &'a mut dyn Events {
    &mut **user_data.cast::<EventSink<'a>>()
}

unsafe extern "C" fn on_begin_frame(
    _: *mut ng::nghttp2_session,
    header: *const ng::nghttp2_frame_hd,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes a valid header.
    unsafe { events(user_data).begin_frame((*header).type_, (*header).stream_id) };
    0
}

unsafe extern "C" fn on_begin(
    _: *mut ng::nghttp2_session,
    frame: *const ng::nghttp2_frame,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes a valid frame. Frames of every type begin with the frame header.
    unsafe {
        if (*frame).headers.cat == ng::NGHTTP2_HCAT_REQUEST {
            events(user_data).begin_headers((*frame).hd.stream_id);
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
    let checked = unsafe {
        let name = slice::from_raw_parts(name, name_length);
        let value = slice::from_raw_parts(value, value_length);
        events(user_data).header((*frame).hd.stream_id, name, value)
    };
    let Err(error_code) = checked else {
        return 0;
    };
    // SAFETY: this callback may submit frames, and `frame` is valid.
    unsafe {
        ng::nghttp2_submit_rst_stream(session, 0, (*frame).hd.stream_id, error_code);
    }
    ng::NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
}

unsafe extern "C" fn on_frame(
    session: *mut ng::nghttp2_session,
    frame: *const ng::nghttp2_frame,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: nghttp2 passes a valid frame. Frames of every type begin with the frame header.
    let (header, events) = unsafe { ((*frame).hd, events(user_data)) };
    let ended = u32::from(header.flags) & ng::NGHTTP2_FLAG_END_STREAM != 0;
    let checked = match u32::from(header.type_) {
        kind if kind == ng::NGHTTP2_HEADERS => events.end_headers(header.stream_id, ended),
        kind if kind == ng::NGHTTP2_DATA && ended => events.end_stream(header.stream_id),
        kind if kind == ng::NGHTTP2_DATA && header.length > 0 => Ok(()),
        _ => {
            events.control_frame(header.type_, header.flags, header.length);
            Ok(())
        }
    };
    if let Err(error_code) = checked {
        // SAFETY: this callback may submit frames.
        unsafe { ng::nghttp2_submit_rst_stream(session, 0, header.stream_id, error_code) };
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
    // SAFETY: nghttp2 passes a valid buffer, and this callback may consume.
    unsafe {
        let taken = events(user_data).data(stream, slice::from_raw_parts(bytes, length));
        ng::nghttp2_session_consume_connection(session, length);
        match taken {
            Ok(0) => {}
            Ok(taken) => {
                ng::nghttp2_session_consume_stream(session, stream, taken);
            }
            Err(error_code) => {
                ng::nghttp2_submit_rst_stream(session, 0, stream, error_code);
            }
        }
    }
    0
}

unsafe extern "C" fn on_close(
    _: *mut ng::nghttp2_session,
    stream: i32,
    error_code: u32,
    user_data: *mut c_void,
) -> i32 {
    if !user_data.is_null() {
        // SAFETY: the user data is not null, so this is within `receive` or `send`.
        unsafe { events(user_data).stream_closed(stream, error_code) };
    }
    0
}

pub(super) unsafe extern "C" fn on_body(
    session: *mut ng::nghttp2_session,
    stream: i32,
    into: *mut u8,
    length: usize,
    flags: *mut u32,
    _source: *mut ng::nghttp2_data_source,
    user_data: *mut c_void,
) -> ng::nghttp2_ssize {
    // SAFETY: nghttp2 passes a buffer of that length, and flags to be set. This callback may submit
    // trailers, which nghttp2 copies unless they are static.
    unsafe {
        let (written, state) =
            events(user_data).read_body(stream, slice::from_raw_parts_mut(into, length));
        match state {
            BodyState::More => {}
            BodyState::Deferred => {
                if written == 0 {
                    return ng::NGHTTP2_ERR_DEFERRED as ng::nghttp2_ssize;
                }
            }
            BodyState::Ok => {
                *flags |= ng::NGHTTP2_DATA_FLAG_EOF | ng::NGHTTP2_DATA_FLAG_NO_END_STREAM;
                let status = [field(b"grpc-status", b"0", STATIC)];
                ng::nghttp2_submit_trailer(session, stream, status.as_ptr(), 1);
            }
            BodyState::Plain => *flags |= ng::NGHTTP2_DATA_FLAG_EOF,
            BodyState::Trailers(trailers) => {
                *flags |= ng::NGHTTP2_DATA_FLAG_EOF | ng::NGHTTP2_DATA_FLAG_NO_END_STREAM;
                let fields: Vec<_> =
                    trailers.iter().map(|(name, value)| field(name, value, OWNED)).collect();
                ng::nghttp2_submit_trailer(session, stream, fields.as_ptr(), fields.len());
            }
        }
        written as ng::nghttp2_ssize
    }
}
