package driftline;

import java.nio.ByteBuffer;
import java.util.Arrays;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;
import org.apache.flink.types.Row;
import org.apache.flink.util.Collector;

/** Whole Kafka records to and from the bytes that stream/flink/envelope.py knows: PyFlink's own schemas see values only. */
public final class Records {
    private static final int FIXED_IN = 1 + 4 + 8 + 8 + 3 * 4;

    /** A record of exposures or feedback, keyed by the number that stands for its partition. */
    public static final class In implements KafkaRecordDeserializationSchema<Row> {
        private final String exposures;
        private final String header;
        private final int[] keys;

        public In(String exposures, String header, int[] keys) {
            this.exposures = exposures;
            this.header = header;
            this.keys = keys;
        }

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Row> out) {
            Header found = null;
            for (Header each : record.headers().headers(header)) {
                found = each;
                break;
            }
            byte[] sent = found == null ? null : found.value();
            ByteBuffer bytes =
                    ByteBuffer.allocate(FIXED_IN + length(sent) + length(record.key()) + length(record.value()));
            bytes.put((byte) (record.topic().equals(exposures) ? 0 : 1));
            bytes.putInt(record.partition()).putLong(record.offset()).putLong(record.timestamp());
            put(bytes, sent);
            put(bytes, record.key());
            put(bytes, record.value());
            out.collect(Row.of(keys[record.partition()], bytes.array()));
        }

        @Override
        public TypeInformation<Row> getProducedType() {
            return Types.ROW(Types.INT, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
        }
    }

    /** A record for one of the topics that the stream writes. */
    public static final class Out implements KafkaRecordSerializationSchema<byte[]> {
        private final String[] topics;

        public Out(String[] topics) {
            this.topics = Arrays.copyOf(topics, topics.length);
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(byte[] element, KafkaSinkContext context, Long timestamp) {
            ByteBuffer bytes = ByteBuffer.wrap(element);
            String topic = topics[bytes.get()];
            int partition = bytes.getInt();
            long at = bytes.getLong();
            byte[] key = take(bytes);
            return new ProducerRecord<>(topic, partition, at, key, take(bytes));
        }
    }

    private static int length(byte[] part) {
        return part == null ? 0 : part.length;
    }

    private static void put(ByteBuffer bytes, byte[] part) {
        bytes.putInt(part == null ? -1 : part.length);
        if (part != null) {
            bytes.put(part);
        }
    }

    private static byte[] take(ByteBuffer bytes) {
        int length = bytes.getInt();
        if (length < 0) {
            return null;
        }
        byte[] part = new byte[length];
        bytes.get(part);
        return part;
    }
}
