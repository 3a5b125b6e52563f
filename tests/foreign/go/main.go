// A service in Go, as far as driftline's topics see one: franz-go with each codec, and generated messages.
//
// usage: foreign BOOTSTRAP PREFIX PARTITIONS USERS [old]
//
// old: speak as a client of Kafka 3.0 does, and without idempotence; the embedded broker hangs up on newer ones.
//
// For each codec, USERS users are served items 1 to 50, shown a page of the first 10, and watch item 1; the records lie
// on user_id mod PARTITIONS. Then as many are served and shown theirs properly, and what they watch lies where franz-go's
// own hash of the key puts it. Users are numbered on from 1. In every second codec the exposures are sent last.
//
// Every third user is named by a text, "user-3", and item 1 is to such a user an item that is: the messages have no
// numbers of these then, and the record lies where the text's number says.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log"
	"math"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"google.golang.org/protobuf/proto"

	driftline "driftline.test/foreign/driftline/v1"
)

const (
	shownMs = 1_772_323_200_000
	byText  = 3
	itemKey = "the first film"
	served  = 50
	page    = 10
)

var codecs = []kgo.CompressionCodec{
	kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
}

func main() {
	bootstrap, prefix := os.Args[1], os.Args[2]
	partitions, users := number(os.Args[3]), number(os.Args[4])
	first := int64(1)
	for at, codec := range codecs {
		client := connect(bootstrap, kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		exposures, impressions, feedback := of(prefix, first, users, partitions)
		if at%2 == 0 {
			send(client, exposures)
		}
		send(client, impressions)
		send(client, feedback)
		if at%2 == 1 {
			send(client, exposures)
		}
		client.Close()
		first += users
	}
	exposures, impressions, feedback := of(prefix, first, users, partitions)
	manual := connect(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	send(manual, exposures)
	send(manual, impressions)
	manual.Close()
	hashed := connect(bootstrap) // all defaults: snappy, and murmur2 of the key
	send(hashed, feedback)
	hashed.Close()
}

func connect(bootstrap string, options ...kgo.Opt) *kgo.Client {
	options = append(options, kgo.SeedBrokers(bootstrap))
	if len(os.Args) > 5 {
		options = append(options, kgo.MaxVersions(kversion.V3_0_0()), kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(options...)
	check(err)
	return client
}

// idOf is the number of a text id.
func idOf(text string) int64 {
	sum := sha256.Sum256([]byte(text))
	return max(int64(binary.BigEndian.Uint64(sum[:8])&math.MaxInt64), 1)
}

// of makes an exposure, an impression and an outcome for each of so many users.
func of(prefix string, first, users, partitions int64) (exposures, impressions, feedback []*kgo.Record) {
	for user := first; user < first+users; user++ {
		id := strconv.FormatInt(user, 10)
		exposure := &driftline.Exposure{
			SchemaVersion: 1,
			EventId:       "exposure-" + id,
			RequestId:     "request-" + id,
			TimeMs:        proto.Int64(shownMs),
			ServedOnly:    true,
		}
		impression := &driftline.Feedback{
			SchemaVersion: 1,
			EventId:       "impression-" + id,
			RequestId:     "request-" + id,
			TimeMs:        proto.Int64(shownMs + 500),
		}
		watched := &driftline.Feedback{
			SchemaVersion: 1,
			EventId:       "feedback-" + id,
			RequestId:     "request-" + id,
			TimeMs:        proto.Int64(shownMs + 1000),
			PlayTimeMs:    proto.Int64(20_000),
			EffectiveView: proto.Bool(true),
		}
		number := user
		if user%byText == 0 {
			key := "user-" + id
			number = idOf(key)
			exposure.UserKey, exposure.Items = key, []*driftline.ExposedItem{{ItemKey: itemKey}}
			impression.UserKey, impression.ShownItemKeys = key, []string{itemKey}
			watched.UserKey, watched.ItemKey = key, itemKey
		} else {
			exposure.UserId, exposure.Items = user, []*driftline.ExposedItem{{ItemId: 1}}
			impression.UserId, impression.ShownItemIds = proto.Int64(user), []int64{1}
			watched.UserId, watched.ItemId = proto.Int64(user), proto.Int64(1)
		}
		for other := int64(2); other <= served; other++ {
			exposure.Items = append(exposure.Items, &driftline.ExposedItem{ItemId: other})
			if other <= page {
				impression.ShownItemIds = append(impression.ShownItemIds, other)
			}
		}
		exposures = append(exposures, record(prefix+"exposures", number, partitions, exposure))
		impressions = append(impressions, record(prefix+"feedback", number, partitions, impression))
		feedback = append(feedback, record(prefix+"feedback", number, partitions, watched))
	}
	return exposures, impressions, feedback
}

func record(topic string, user, partitions int64, message proto.Message) *kgo.Record {
	value, err := proto.Marshal(message)
	check(err)
	return &kgo.Record{
		Topic:     topic,
		Key:       []byte(strconv.FormatInt(user, 10)),
		Partition: int32(user % partitions), // a client with a partitioner of its own does not look at it
		Value:     value,
	}
}

func send(client *kgo.Client, records []*kgo.Record) {
	check(client.ProduceSync(context.Background(), records...).FirstErr())
}

func number(text string) int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
