// A service in Go on its first day with driftline (docs/first-day.md): it asks for items, shows them, and says what its
// users did with them.
//
// usage: first-day recall USER        asks for items, and prints them with where they came from
//
//	first-day visit FIRST LAST   users FIRST to LAST are shown items and watch some, which goes to Kafka
//	first-day wait USER          asks once a second until a trained model answers
//
// environment: REPLICA and KAFKA are HOST:PORT, as in settings.yaml (serving.port, kafka.bootstrap_servers).
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // lets the client ask replicas whether they are ready
	"google.golang.org/protobuf/proto"

	driftline "example.org/first-day/driftline/v1"
)

const (
	partitions = 2                    // kafka.partitions of the settings
	topic      = "driftline.feedback" // kafka.topic_prefix of the settings, and the topic's name
	shown      = 20                   // items to a page
	tastes     = 10                   // of this made-up audience: user 17 watches items 7, 17, 27, …
	patience   = 5 * time.Minute
)

// balancing goes to replicas that are ready, and asks another one where one fails.
const balancing = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": "driftline.v1.RecallService"},
	"methodConfig": [{
		"name": [{"service": "driftline.v1.RecallService"}],
		"retryPolicy": {
			"maxAttempts": 3,
			"initialBackoff": "0.01s",
			"maxBackoff": "0.1s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"]
		}
	}]
}`

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: first-day recall USER | visit FIRST LAST | wait USER")
	}
	connection, err := grpc.NewClient(
		os.Getenv("REPLICA"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(balancing),
	)
	check(err)
	defer connection.Close()
	replicas := driftline.NewRecallServiceClient(connection)
	switch user := number(os.Args[2]); os.Args[1] {
	case "recall":
		tell(user, recall(replicas, user))
	case "visit":
		visit(replicas, user, number(os.Args[len(os.Args)-1]))
	case "wait":
		wait(replicas, user)
	default:
		log.Fatalf("%s is none of recall, visit, wait", os.Args[1])
	}
}

// recall asks for a page. Sent again with the same request id, it would still be one exposure.
func recall(replicas driftline.RecallServiceClient, user int64) *driftline.RecallReply {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply, err := replicas.Recall(
		ctx,
		&driftline.RecallRequest{UserId: user, K: shown, RequestId: rand.Text()},
		grpc.WaitForReady(true), // a service in production has a deadline of some 200 ms here, and no patience
	)
	check(err)
	return reply
}

// visit shows each user a page, and sends what the user did with each of its items.
func visit(replicas driftline.RecallServiceClient, first, last int64) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("KAFKA")),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // a user's partition is user id mod n, no hash of the key
	)
	check(err)
	defer client.Close()
	items, watched := 0, 0
	for user := first; user <= last; user++ {
		reply := recall(replicas, user)
		var records []*kgo.Record
		for _, item := range reply.Items {
			likes := item.ItemId%tastes == user%tastes
			records = append(records, feedback(reply.RequestId, user, item.ItemId, likes))
			items++
			if likes {
				watched++
			}
		}
		check(client.ProduceSync(context.Background(), records...).FirstErr())
	}
	fmt.Printf("users %d to %d were shown %d items and watched %d\n", first, last, items, watched)
}

func feedback(request string, user, item int64, likes bool) *kgo.Record {
	play := int64(1_000)
	if likes {
		play = 20_000
	}
	value, err := proto.Marshal(&driftline.Feedback{
		SchemaVersion: 1,
		EventId:       rand.Text(),
		RequestId:     request,
		UserId:        proto.Int64(user),
		ItemId:        proto.Int64(item),
		TimeMs:        proto.Int64(time.Now().UnixMilli()),
		PlayTimeMs:    proto.Int64(play),
		EffectiveView: proto.Bool(likes), // the service decides what counts; false has to be said, too
	})
	check(err)
	return &kgo.Record{
		Topic:     topic,
		Key:       []byte(strconv.FormatInt(user, 10)),
		Partition: int32(user % partitions),
		Value:     value,
	}
}

// wait asks until the tower of a trained model answers, rather than what is popular or new.
func wait(replicas driftline.RecallServiceClient, user int64) {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Second) {
		if reply := recall(replicas, user); reply.Model != "" && reply.Sources[0].Source == reply.Model {
			tell(user, reply)
			return
		}
	}
	log.Fatalf("no trained model answered within %s", patience)
}

func tell(user int64, reply *driftline.RecallReply) {
	var items []string
	for _, item := range reply.Items {
		items = append(items, strconv.FormatInt(item.ItemId, 10))
	}
	from := "no snapshot"
	if reply.SnapshotVersion != "" {
		from = "snapshot " + reply.SnapshotVersion + " of " + reply.Model
	}
	fmt.Printf("user %d, from %s: %s\n", user, from, strings.Join(items, " "))
	for _, source := range reply.Sources {
		fmt.Println("source:", source.Source)
	}
	if reply.Fallback != "" {
		fmt.Println("fallback:", reply.Fallback)
	}
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
