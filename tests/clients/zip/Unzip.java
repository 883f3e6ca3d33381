// Reads a zip from its standard input as it comes and prints `SHA-256 SIZE NAME` of each entry.
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.ZipInputStream;

class Unzip {
    public static void main(String[] arguments) throws Exception {
        var out = new java.io.PrintStream(System.out, false, "UTF-8");
        var buffer = new byte[1 << 16];
        try (var zip = new ZipInputStream(System.in)) {
            for (var entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                var digest = MessageDigest.getInstance("SHA-256");
                long size = 0;
                for (int read = zip.read(buffer); read >= 0; read = zip.read(buffer)) {
                    digest.update(buffer, 0, read);
                    size += read;
                }
                out.println(HexFormat.of().formatHex(digest.digest()) + " " + size + " " + entry.getName());
            }
        }
        out.flush();
    }
}
