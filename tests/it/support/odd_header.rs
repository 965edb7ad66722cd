//! A header whose name is not UTF-8: Kafka takes it, and the safe client can neither write nor read it.
#![allow(unsafe_code)]

use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::message::OwnedHeaders;
use rdkafka::types::RDKafkaRespErr;

/// The headers, and one more of the name `0xff` with the value `odd`.
pub fn add(headers: OwnedHeaders) -> OwnedHeaders {
    let native = ptr::from_ref(headers.as_borrowed()).cast_mut().cast::<sys::rd_kafka_headers_t>();
    // SAFETY: the headers are ours alone; name and value are copied.
    let added = unsafe { sys::rd_kafka_header_add(native, c"\xff".as_ptr(), 1, c"odd".as_ptr().cast(), 3) };
    assert_eq!(added, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    headers
}
