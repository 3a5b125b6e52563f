// A service in Go, as far as driftline's topics see one: franz-go with each codec, and generated messages.
//
// usage: foreign BOOTSTRAP PREFIX PARTITIONS USERS [old]
//
// old: speak as a client of Kafka 3.0 does, and without idempotence; the embedded broker hangs up on newer ones.
//
// For each codec, USERS users are served items 1 to 50, shown a page of the first 10, and watch item 1; the records lie
// on user_id mod PARTITIONS. Then as many are served and shown theirs properly, and what they watch lies where franz-go's
// own hash of the key puts it. Users are numbered on from 1. In every second codec the exposures are sent last.
package main

import (
	"context"
	"log"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"google.golang.org/protobuf/proto"

	driftline "driftline.test/foreign/driftline/v1"
)

const (
	shownMs = 1_772_323_200_000
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

// of makes an exposure, an impression and an outcome for each of so many users.
func of(prefix string, first, users, partitions int64) (exposures, impressions, feedback []*kgo.Record) {
	items, shown := make([]*driftline.ExposedItem, served), make([]int64, page)
	for at := range items {
		items[at] = &driftline.ExposedItem{ItemId: int64(at + 1)}
	}
	for at := range shown {
		shown[at] = int64(at + 1)
	}
	for user := first; user < first+users; user++ {
		id := strconv.FormatInt(user, 10)
		exposures = append(exposures, record(prefix+"exposures", user, partitions, &driftline.Exposure{
			SchemaVersion: 1,
			EventId:       "exposure-" + id,
			RequestId:     "request-" + id,
			UserId:        user,
			TimeMs:        proto.Int64(shownMs),
			Items:         items,
			ServedOnly:    true,
		}))
		impressions = append(impressions, record(prefix+"feedback", user, partitions, &driftline.Feedback{
			SchemaVersion: 1,
			EventId:       "impression-" + id,
			RequestId:     "request-" + id,
			UserId:        proto.Int64(user),
			TimeMs:        proto.Int64(shownMs + 500),
			ShownItemIds:  shown,
		}))
		feedback = append(feedback, record(prefix+"feedback", user, partitions, &driftline.Feedback{
			SchemaVersion: 1,
			EventId:       "feedback-" + id,
			RequestId:     "request-" + id,
			UserId:        proto.Int64(user),
			ItemId:        proto.Int64(1),
			TimeMs:        proto.Int64(shownMs + 1000),
			PlayTimeMs:    proto.Int64(20_000),
			EffectiveView: proto.Bool(true),
		}))
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
