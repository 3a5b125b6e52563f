// A service in Node: kafkajs with the codecs that it has, and protobufjs on driftline's own .proto file.
//
// usage: node main.js EVENTS.PROTO BOOTSTRAP PREFIX PARTITIONS USERS
//
// For each codec, USERS users are served items 1 to 50, shown a page of the first 10, and watch item 1; the records lie
// on user_id mod PARTITIONS. Then as many are served and shown theirs properly, and what they watch lies where kafkajs'
// own hash of the key puts it. In every second codec the exposures are sent last.
//
// Every third user is named by a text, "user-3", and item 1 is to such a user an item that is: the messages have no
// numbers of these then, and the record lies where the text's number says. That is a BigInt here, as a double holds 53
// bits.
'use strict'

const { createHash } = require('node:crypto')

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs')
const protobuf = require('protobufjs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const SHOWN_MS = 1772323200000
const BY_TEXT = 3
const ITEM_KEY = 'the first film'
const OTHERS = Array.from({ length: 49 }, (_, at) => at + 2)
const PAGE = OTHERS.slice(0, 9)
const CODECS = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy]
const [file, bootstrap, prefix, partitions, users] = process.argv.slice(2)
const root = protobuf.loadSync(file)
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR })

// The number of a text id.
function idOf(text) {
  const number = createHash('sha256').update(text, 'utf8').digest().readBigUInt64BE() & 0x7fffffffffffffffn
  return number || 1n
}

function namesOf(user) {
  if (user % BY_TEXT) return { number: BigInt(user), who: { userId: user }, what: { itemId: 1 } }
  const userKey = `user-${user}`
  return { number: idOf(userKey), who: { userKey }, what: { itemKey: ITEM_KEY } }
}

function record(kind, fields, number, placed) {
  const type = root.lookupType(`driftline.v1.${kind}`)
  const value = Buffer.from(type.encode(type.create(fields)).finish())
  const key = String(number)
  return placed ? { key, value, partition: Number(number % BigInt(partitions)) } : { key, value }
}

function exposureOf(user) {
  const { number, who, what } = namesOf(user)
  const fields = {
    schemaVersion: 1,
    eventId: `exposure-${user}`,
    requestId: `request-${user}`,
    ...who,
    timeMs: SHOWN_MS,
    items: [what, ...OTHERS.map((itemId) => ({ itemId }))],
    servedOnly: true,
  }
  return record('Exposure', fields, number, true)
}

function impressionOf(user) {
  const { number, who, what } = namesOf(user)
  const fields = {
    schemaVersion: 1,
    eventId: `impression-${user}`,
    requestId: `request-${user}`,
    ...who,
    timeMs: SHOWN_MS + 500,
    shownItemIds: what.itemId ? [what.itemId, ...PAGE] : PAGE,
    shownItemKeys: what.itemKey ? [what.itemKey] : [],
  }
  return record('Feedback', fields, number, true)
}

function feedbackOf(user, placed) {
  const { number, who, what } = namesOf(user)
  const fields = {
    schemaVersion: 1,
    eventId: `feedback-${user}`,
    requestId: `request-${user}`,
    ...who,
    ...what,
    timeMs: SHOWN_MS + 1000,
    playTimeMs: 20000,
    effectiveView: true,
  }
  return record('Feedback', fields, number, placed)
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
