// A service in Node: kafkajs with the codecs that it has, and protobufjs on driftline's own .proto file.
//
// usage: node main.js EVENTS.PROTO BOOTSTRAP PREFIX PARTITIONS USERS
//
// For each codec, USERS users are served items 1 to 50, shown a page of the first 10, and watch item 1; the records lie
// on user_id mod PARTITIONS. Then as many are served and shown theirs properly, and what they watch lies where kafkajs'
// own hash of the key puts it. In every second codec the exposures are sent last.
'use strict'

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs')
const protobuf = require('protobufjs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const SHOWN_MS = 1772323200000
const SERVED = Array.from({ length: 50 }, (_, at) => at + 1)
const PAGE = SERVED.slice(0, 10)
const CODECS = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy]
const [file, bootstrap, prefix, partitions, users] = process.argv.slice(2)
const root = protobuf.loadSync(file)
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR })

function record(kind, fields, user, placed) {
  const type = root.lookupType(`driftline.v1.${kind}`)
  const value = Buffer.from(type.encode(type.create(fields)).finish())
  const key = String(user)
  return placed ? { key, value, partition: user % Number(partitions) } : { key, value }
}

function exposureOf(user) {
  const fields = {
    schemaVersion: 1,
    eventId: `exposure-${user}`,
    requestId: `request-${user}`,
    userId: user,
    timeMs: SHOWN_MS,
    items: SERVED.map((itemId) => ({ itemId })),
    servedOnly: true,
  }
  return record('Exposure', fields, user, true)
}

function impressionOf(user) {
  const fields = {
    schemaVersion: 1,
    eventId: `impression-${user}`,
    requestId: `request-${user}`,
    userId: user,
    timeMs: SHOWN_MS + 500,
    shownItemIds: PAGE,
  }
  return record('Feedback', fields, user, true)
}

function feedbackOf(user, placed) {
  const fields = {
    schemaVersion: 1,
    eventId: `feedback-${user}`,
    requestId: `request-${user}`,
    userId: user,
    itemId: 1,
    timeMs: SHOWN_MS + 1000,
    playTimeMs: 20000,
    effectiveView: true,
  }
  return record('Feedback', fields, user, placed)
}

async function main() {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const send = (topic, messages, compression) => producer.send({ topic: prefix + topic, messages, compression })
  let first = 1
  const next = () => Array.from({ length: Number(users) }, () => first++)
  for (const [at, codec] of CODECS.entries()) {
    const those = next()
    const exposures = () => send('exposures', those.map(exposureOf), codec)
    if (at % 2 === 0) await exposures()
    await send('feedback', those.map(impressionOf), codec)
    await send('feedback', those.map((user) => feedbackOf(user, true)), codec)
    if (at % 2 === 1) await exposures()
  }
  const those = next()
  await send('exposures', those.map(exposureOf), CompressionTypes.None)
  await send('feedback', those.map(impressionOf), CompressionTypes.None)
  await send('feedback', those.map((user) => feedbackOf(user, false)), CompressionTypes.None)
  await producer.disconnect()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
